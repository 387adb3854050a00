"""Side by side with peers, in one process, interleaved; results are committed with the machine they are from."""
