"""The zoo of `transformers` needs an extra; without it, it is not collected."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("transformers") else ["hf_zoo.py", "test_hf_zoo.py"]
