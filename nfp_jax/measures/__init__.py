"""Measures of a trained network, and bounds on a mean; one idea a file.

``memorization`` says how much a network memorized and how fast, ``capacity`` searches
for the most that it can. ``lipschitz`` bounds its Lipschitz constant from below and
above, ``law`` is the law of robustness. ``student_t`` has the interval of paired
differences, ``betting`` bounds on a mean at a stated confidence. Import a file by its
name; importing this folder loads none of them.
"""
