"""Where annotations are checked at run time, and by what."""

#: Packages whose functions are checked: shapes, element types and plain types of arguments and
#: results. What a run is declared and recorded by (pydantic checks it) and reports are not.
CHECKED = tuple(f"dgm_bench.{room}" for room in ("models", "metrics", "train", "data", "pictures"))
#: As in mypy, an integer will do for a float.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
