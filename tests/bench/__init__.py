"""The benchmark: `python -m tests.bench [--quick] [--only KEY,...]`, or `make bench`.

Whole stacks of real processes, ours and what people use instead, take turns inside one run; what is
reported are ratios of medians' pairs, never seconds to be asserted. It is not collected by pytest.
"""
