"""One tick: observe, plan, commit, publish, confirm, issue, deliver."""
