"""The larger pieces that pages show: a trial, a mechanism, the gate's verdict, a dialogue, source code."""
