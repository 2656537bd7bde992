"""Random transfers under random faults between two real Orthancs, and what must be true after each round.

    python -m tests.faults.torture --seed 1 --minutes 60

The seed decides all that is tried, round by round; what comes of it also depends on the machine. ``--first`` and
``--rounds`` try some rounds of a seed again. Ends with status 1 at the first violation of an invariant:

- each transfer is whole or not there, with the MD5s of its sender; one that says ``Success`` is there, one that says
  that nothing was kept is not;
- nothing that was there before is gone, nothing is there that was not sent;
- a job ends; if it failed it says in one sentence why, and goes through once nothing is broken any more;
- nothing is left in staging but the outcomes that are remembered for a while;
- no Orthanc crashes or hangs at its end, and in rounds without kills none gains threads, file descriptors or memory.

Most rounds are between the same two Orthancs (``plain.py``). Each third is between two of its own, which begin with
what makes it special: ``recycling.py``, ``small_disk.py``, ``poison.py``, ``dead_peer.py``, ``small_studies.py``,
``rules.py``. Each of them says what else must be true there, and suffers the random faults of ``acts.py`` and
``network_faults.py`` too.

``--cluster``: other rounds, with a cluster of three nodes (``cluster.py``).
"""
