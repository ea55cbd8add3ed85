"""The tokens of notebook 01's Markdown, as text, from its results file.

python fill_numbers.py RESULTS.json            prints token and text
python fill_numbers.py RESULTS.json NOTEBOOK   also fills them in, in place (Markdown cells only; outputs and code untouched)
"""
import json, re, sys

d = json.load(open(sys.argv[1]))
v, t = d["values"], d["tables"]
pc = lambda x: f"{100 * x:.1f} %"
points = lambda x: f"{abs(100 * x):.1f}"
def cell(table, row, column):
    found = t[table]; n = len(found["columns"])
    (line,) = [r for r in found["rows"] if list(r[: len(row)]) == list(row)]
    return line[found["columns"].index(column)]
def tt(a, b): return v[f"trained_{a}_tested_{b}"]
sweep = lambda model: cell("sweep", [0.05], f"trained {model} accuracy")
AV = "noise at 224 px, averaged back"
bn = lambda m, s, c: cell("batchnorm", [f"trained {m}", s], c)
pen = lambda s, c: cell("penalty", [f"trained clean, sigma {s}"], c)
orders = re.search(r"differs from the first by ([+-][\d.]+ points \(95 % interval [+-][\d.]+ to [+-][\d.]+\))",
                   " ".join(d["findings"].values()))[1]
tokens = {
    "clean_clean": pc(tt("clean", "clean")), "clean_noisy": pc(tt("clean", "noisy")),
    "noisy_clean": pc(tt("noisy", "clean")), "noisy_noisy": pc(tt("noisy", "noisy")),
    "cost": points(tt("clean", "noisy") - tt("clean", "clean")) + " points",
    "gain": points(tt("noisy", "noisy") - tt("clean", "noisy")),
    "price": points(tt("noisy", "clean") - tt("clean", "clean")),
    "clean_best": str(v["clean_best_epoch"]), "noisy_best": str(v["noisy_best_epoch"]),
    "clean_train": pc(v["clean_train_top1"]), "noisy_train": pc(v["noisy_train_top1"]),
    "spread_least": points(v["spread_least"]), "spread_most": points(v["spread_most"]),
    "spread_difference": points(v["spread_difference"]),
    "half_accuracy": points(v["half_accuracy"]), "half_difference": points(v["half_difference"]),
    "averaged_without": pc(cell("averaged", ["no noise"], "tested clean")),
    "averaged_never": pc(cell("averaged", [AV], "no noise, on that noise")),
    "never_32": pc(cell("averaged", ["noise at 32 px"], "no noise, on that noise")),
    "averaged_price": points(cell("averaged", [AV], "minus no noise")),  # absolute: look at the sign
    "price_32": points(cell("averaged", ["noise at 32 px"], "minus no noise")),
    "orders_difference": orders,
    "frozen_train": pc(cell("frozen", ["training, last epoch"], "frozen noise")),
    "fresh_train": pc(cell("frozen", ["training, last epoch"], "fresh noise")),
    "frozen_val": pc(cell("frozen", ["noisy validation, best epoch"], "frozen noise")),
    "fresh_val": pc(cell("frozen", ["noisy validation, best epoch"], "fresh noise")),
    "cost_val": points(bn("clean", "as trained", "tested noisy") - bn("clean", "as trained", "tested clean")),
    "price_val": points(bn("noisy", "as trained", "tested clean") - bn("clean", "as trained", "tested clean")),
    "bn_gain": points(v["bn_gain"]), "bn_gain_noisy": points(v["bn_gain_noisy"]),
    "curvature_ratio": f"{v['curvature_ratio']:.1f}", "slope_ratio": f"{v['slope_ratio']:.1f}",
    "predicted_small": f"{pen('1/255', 'sigma^2 / 2 tr G'):.4f}",
    "measured_small": f"{pen('1/255', 'rise, believed labels'):.4f}",
    "true_small": f"{pen('1/255', 'rise, true labels'):.4f}",
    "predicted_large": f"{pen('as trained', 'sigma^2 / 2 tr G'):.1f}",
    "measured_large": f"{pen('as trained', 'rise, believed labels'):.1f}",
    "lesion_least": f"{100 * v['lesion_least']:.0f} %", "lesion_most": f"{100 * v['lesion_most']:.0f} %",
    "moved_clean": f"{100 * cell('feature_change', ['layer4'], 'trained clean'):.0f} %",
    "moved_noisy": f"{100 * cell('feature_change', ['layer4'], 'trained noisy'):.0f} %",
    "leaked_share": pc(v["leaked_share"]),
}
for name, text in tokens.items():
    print(f"{name:20} {text}")
if len(sys.argv) > 2:
    notebook = json.load(open(sys.argv[2]))
    for c in notebook["cells"]:
        if c["cell_type"] == "markdown":
            text = re.sub(r"⟦(\w+)⟧", lambda m: tokens.get(m[1], m[0]), "".join(c["source"]))
            c["source"] = text.splitlines(keepends=True)
    open(sys.argv[2], "w").write(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    print("left to write by hand:", sorted(set(re.findall(r"⟦\w+⟧", json.dumps(notebook, ensure_ascii=False)))))
