"""Callbacks for `fit()`, once for both Kerases. The folders `keras3` and `tf_keras` join them to their callbacks."""
