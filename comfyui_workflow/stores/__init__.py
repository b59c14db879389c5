"""Stores of the records, and the journal, which is the only writer of runs.

    record    the stored data of a run, batch, job or webhook, of the instances, or of their usage
    seal      the head of a record on disk: its version and checksum
    log       an append-only file of lines: `run.jsonl` of a run, `finished.jsonl` of all summaries
    line      one entry of a log
    summary   the fields of a run that lists show
    index     the fields of every run that are in memory, to find and count runs

`base.py` has a protocol for each kind of record; `files/` and `memory.py` implement them, and `app.py`
chooses."""
