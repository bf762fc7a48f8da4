"""Studies: experiments too long for a lab, run once and committed as CSV.

`labs study NAME` runs one and writes data/studies/NAME.csv; every row says with which
versions, on what device, when and from what it was measured. The studies of a lab stand
in the rooms here; `stale` says which files are older than what they were made with.
"""

from labs_tools.studies.running import UnknownStudy, run, studies
from labs_tools.studies.study import Study, here
