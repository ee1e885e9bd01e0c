"""Which level is worth using: training runs on the same rows, the statistics between them, and the report.

compare.py is the entry point. plan.py checks the request, run.py trains level by level (trainings.py keeps the results,
worker_process.py starts worker.py), results.py turns predictions into gains and a verdict, report.py shows them.
"""
