"""What happens inside a liquid layer: states, time constants, currents, polarities, pictures.

Tensors first: :func:`trace` follows the neurons of a layer over a sequence, :func:`trace_model`
those of every liquid layer in a model, such as ``Run.open(FOLDER).load_checkpoint().model`` of
``fastltc.jobs``; :func:`synaptic_currents` and :func:`polarities` go by synapse, and
:func:`attribute` says which part of an input drove an output. Pictures are PNG files, as
``fastltc.jobs.plots`` makes them.
"""

from fastltc.inspect.ablation import ablate
from fastltc.inspect.attribution import attribute
from fastltc.inspect.diagram import wiring_diagram
from fastltc.inspect.graph import wiring_graph
from fastltc.inspect.liquid_layer import network_of
from fastltc.inspect.network import Network, Synapse
from fastltc.inspect.pictures import draw_attribution, draw_states, draw_time_constants
from fastltc.inspect.synapses import Polarities, polarities, synaptic_currents
from fastltc.inspect.trace import Currents, Trace, trace, trace_model

__all__ = [
    "Currents",
    "Network",
    "Polarities",
    "Synapse",
    "Trace",
    "ablate",
    "attribute",
    "draw_attribution",
    "draw_states",
    "draw_time_constants",
    "network_of",
    "polarities",
    "synaptic_currents",
    "trace",
    "trace_model",
    "wiring_diagram",
    "wiring_graph",
]
