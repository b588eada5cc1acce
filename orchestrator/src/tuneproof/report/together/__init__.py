"""Several studies in one report: the paper's questions over its data sets.

over     what all studies say to RQ1, RQ2 and RQ3, data set by data set
page     the page: one HTML file, with a link to each study's own report
"""

from tuneproof.report.together.over import Part, names_of
from tuneproof.report.together.page import SCHEMA, build_joint_report, joint_json

__all__ = ["SCHEMA", "Part", "build_joint_report", "joint_json", "names_of"]
