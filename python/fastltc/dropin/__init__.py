"""Models and scripts that are written for ncps, run by fastltc without an edit.

`fastltc.accelerate` swaps the modules of a model, `fastltc.patch_ncps` those that are made from now
on, and ``fastltc run`` (`script`) patches ncps for a script. What a swap takes is in `conversions`;
`verified` tells whether a class of ncps is still the one that fastltc computes.
"""
