"""Measure super-resolved pictures: against the truth, their input, or other models.

`measure_pair` and `measure_models` answer a request from files to figures; `report` is
the row and the table of figures; `metrics`, `edges`, `seams` and `lpips` compute them
on arrays.
"""
