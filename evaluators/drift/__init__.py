"""Drift: each scored sample compared with the baseline, alarms, and what they rest on."""
