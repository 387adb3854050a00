"""Where real runs depart from the ideal: drifting norms, gradients that lean on the weights, finite eps, no decay."""
