"""Where annotations are checked at run time, and by what."""

#: Packages whose functions are checked: shapes, element types and plain types of arguments and
#: results. What a run is declared and recorded by (pydantic checks it) and figures are not.
CHECKED = ("dgm_bench.models", "dgm_bench.metrics", "dgm_bench.train", "dgm_bench.data")
#: As in mypy, an integer will do for a float.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
