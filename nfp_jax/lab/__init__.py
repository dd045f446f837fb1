"""What the runs of all questions share: from cells to trained networks.

``names`` are those that a configuration may use; ``setup`` makes the frozen set-up of a
run; ``draws`` makes data and initial weights from named keys, ``masking`` masks before
training, ``trajectories`` those through it; ``jobs`` are what the engine trains, and
``columns`` what follows from it. ``run`` hands cells to their question. A question is
handed in by its card: nothing here imports one.
"""
