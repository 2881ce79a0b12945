"""The paper's figures and tables as recipes that one command runs."""
