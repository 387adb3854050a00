"""Lightning: `from decaylab.lightning import DecaylabCallback`."""

from bridge.integrations.lightning import DecaylabCallback as DecaylabCallback
