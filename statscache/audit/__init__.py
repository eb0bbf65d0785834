"""Compare the tables with the archive: on demand, and continuously in the background.

Begin with ``verify``, which compares the idents that it is given; ``background`` does that a day
at a time, and repairs.

- Rows: ``comparand`` (what is compared), ``recount`` (the messages of the archive, counted in a
  scratch database), ``comparison`` (row by row), ``boundary_shifts`` (differences that copies with
  other times explain), ``uncertain_ranges`` (where nothing is known), ``verdict`` (what is found).
- Messages: ``archive_loss`` (which ones the archive has lost, for a short time), ``shortfall`` (how
  many, for any time).
- Changes: ``repair`` (wrong rows are replaced), ``gaps`` (what the archive did not return is asked
  for again).
"""
