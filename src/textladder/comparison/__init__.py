"""Which level is worth it: trainings on the same rows, the arithmetic between them, and the report.

compare.py runs everything; trainings.py and worker.py train and measure in processes of their own, spool.py hands them
the rows; results.py, significance.py, curve.py and verdict.py turn predictions into numbers; report.py shows them.
"""
