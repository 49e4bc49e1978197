"""Options of the tests."""


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-seeds",
        metavar="START:STOP",
        help="seeds of the random nets of tests/symmetry/test_fuzz.py, in place of its own",
    )
