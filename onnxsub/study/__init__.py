"""Studies: experiments over many networks, each one command that resumes and writes tables and figures."""
