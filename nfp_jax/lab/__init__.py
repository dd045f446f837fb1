"""What the runs of all questions share: from cells to trained networks.

``names`` are those that a configuration may use; ``setup`` makes the frozen set-up of a
run; ``stacked`` makes data, initial weights and masks of many cells at once from the
named keys of ``draws``, ``chains`` leads from draws to all masks, through training too;
``training`` hands networks to the engine, and ``columns`` are what follows from those
that ended. ``run`` hands cells to their question. A question is
handed in by its card: nothing here imports one.
"""
