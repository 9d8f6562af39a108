"""What a finished run gives away: secrets are planted, it is trained as its file says, and five attacks are tried.

`secrets` makes and plants what is looked for, `attacks` turns losses into scores, `looking` reads a trained model,
`shadows` trains the models that one attack compares with, `report` puts them together.
"""

__all__: list[str] = []
