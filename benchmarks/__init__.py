"""How fast dualdb is, beside everything that people use in its place: ``scripts/bench``
measures, and writes ``docs/benchmarks.md``.

=================  =====================================================================
``data``           the tables, the statements, the rows
``row_types``      what a row of them may be made as
``peers``          each contestant: its names, and the same operations
``threaded``       those of threads
``asynchronous``   those of asyncio
``scatter``        dualdb over several shards
``worker``         one contestant in a process of its own, which does as it is asked
``workers``        the other end: starts workers and tells them
``measure``        interleaving; medians and ratios
``scenarios``      what is measured
``goals``          what was to be reached
``results``        what was found, and its file
``report``         the document
``plots``          its pictures
=================  =====================================================================
"""
