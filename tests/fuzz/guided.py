"""The same properties, led by what the code does with each input instead of by chance; by hand, on Linux.

pip install atheris
python -m tests.fuzz.guided ssh_strings -max_total_time=600
"""

import importlib
import sys

TARGETS = {
    "ssh_strings": "test_an_ssh_string_is_an_address_or_is_refused_in_a_sentence",
    "websocket_messages": "test_whatever_is_heard_becomes_events_that_can_be_recorded",
    "graphs": "test_a_value_is_a_graph_or_is_refused",
    "output_names": "test_an_output_never_leaves_the_directory",
    "state_machine": "test_whatever_happens_the_run_makes_sense",
    "records": "test_a_spoiled_record_takes_nothing_else_with_it",
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"which of {', '.join(TARGETS)}?")
    import atheris  # noqa: PLC0415 - an optional part

    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["comfyui_workflow"]):
        tests = importlib.import_module(f"tests.fuzz.test_{name}")
    test = getattr(tests, TARGETS[name])
    atheris.Setup(sys.argv, test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
