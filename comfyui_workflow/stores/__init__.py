"""Stores of the records, and the only writer of runs.

    record    what is kept of one thing: a run, batch, job, webhook, the instances, their usage
    seal      the head of a record on the disk: its version and checksum
    log       a file to which lines are only appended: `run.jsonl` of a run, `finished.jsonl` of all summaries
    line      one entry of a log
    summary   the fields of a run that lists show
    index     what is held in memory of every run, to find and count them

`base.py` has a protocol for each kind of record; `files/` and `memory.py` implement them, and `app.py`
chooses."""
