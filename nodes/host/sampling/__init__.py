"""The method's runs inside the host's guider and sampler machinery."""
