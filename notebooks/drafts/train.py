"""The trainings of notebook 01 in `lite`, each with the notebook's own settings: python notebooks/drafts/train.py NAME ...

NAME: recipe; "clean seed 0" ... "noisy seed 2"; "averaged 7"; frozen; "enlarged 2 no noise",
"enlarged 2 noise, then enlarge", "enlarged 2 enlarge, then noise"; all (everything but the assigned pair).

It executes the notebook's code cells themselves, in order, up to the cell that defines what the training needs, and leaves
out the lines that train or look. $PROFILE=lite, $DATA_ROOT (the zips: the source counts among the settings), $CHECKPOINT_DIR as for the notebook; run from the repository root.
"""
import json, sys

notebook = json.load(open("notebooks/01_noisy_resnet.ipynb"))
cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
def cell(mark):
    (found,) = [c for c in cells if mark in c]
    return found
def before(source, mark):
    return source[: source.index(mark)]

scope = {}
def do(source):
    exec(compile(source, "notebook", "exec"), scope)

do('PROFILE = None')
do(cell('run = Run("01_noisy_resnet"'))
do(cell("SETTINGS = pd.DataFrame(["))
do(cell("MEAN, STD = "))
do(cell("train, val = pool.divide("))
do("noise = GaussianNoise(settings.variance)")
do(cell("def new_model("))
do(cell("def train_assigned("))
do(before(cell("def train_recipe("), "recipe_model, recipe_history"))
do('kinds = {"clean": [], "noisy": [noise]}')
do("side = train.take(settings.side_train, run.seed)")
do("probe = val.take(settings.probe, run.seed)")
do(before(cell("class NoiseAfterEnlarging:"), "probe = val.take"))

def train(name):
    s = scope; settings = s["settings"]; side = s["side"]
    if name == "recipe":
        return s["train_recipe"]("recipe")
    if " seed " in name:
        kind, seed = name.split(" seed ")
        monitor = {"clean": "val_top1", "noisy": "noisy_val_top1"}[kind]
        return s["train_assigned"](name, s["kinds"][kind], side, settings.side_epochs, monitor=monitor, seed=int(seed))
    if name == "averaged 7":
        return do(before(cell("averaged_model, _ = train_assigned("), "trained_with = {"))
    if name == "frozen":
        return do(before(cell("frozen_model, frozen_history = train_assigned("), "histories = {"))
    if name.startswith("enlarged"):  # the three share a cell
        return do(before(cell("def enlarged_orders("), "table_6 = "))
    raise SystemExit(f"unknown: {name}")

names = sys.argv[1:]
if names == ["all"]:
    names = ["recipe", *(f"{k} seed {s}" for s in (0, 1, 2) for k in ("clean", "noisy")), "averaged 7", "frozen", "enlarged"]
for name in names:
    print(name, flush=True)
    train(name)
