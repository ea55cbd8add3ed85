"""A notebook as a piece of course work: run it, keep its results, write the report, hand it in."""
