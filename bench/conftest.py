"""Settings of the benchmark suites: the columns worth reading, and no warm-up of the interpreter's own.
They are timed, not checked: the tests are in tests/.
"""


def pytest_configure(config):
    config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]
    config.option.benchmark_sort = "fullname"
    config.option.benchmark_group_by = "group"
