"""The verifier of Tjeng et al.: decisions and distances by mixed-integer programs."""
