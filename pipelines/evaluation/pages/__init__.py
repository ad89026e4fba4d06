"""Pages of HTML for people: one of a run, one of all recipes. Plain data go in, one self-contained file comes out."""
