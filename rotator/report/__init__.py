"""The one read model: what ``status``, the lists, the timeline and health checks are made of.

Pure functions over one snapshot of the database, the policy in force, a moment and the faults that are known. They
return frozen records; ``shape`` turns those into JSON and back. Imports the core and the ports, nothing else.
"""

from rotator.report.lists import KeyList, TokenList, keys, tokens
from rotator.report.plans import Plan, plan
from rotator.report.records import Health, Problem, Report
from rotator.report.shape import from_json, rfc3339, schema, to_json
from rotator.report.status import status
from rotator.report.timeline import PlanEntry, Step
from rotator.report.trail import AuditFilter, AuditList, audit

__all__ = [
    "AuditFilter",
    "AuditList",
    "Health",
    "KeyList",
    "Plan",
    "PlanEntry",
    "Problem",
    "Report",
    "Step",
    "TokenList",
    "audit",
    "from_json",
    "keys",
    "plan",
    "rfc3339",
    "schema",
    "status",
    "to_json",
    "tokens",
]
