"""What fewer bytes bring: one Adam step of parameters and states in 32, 16 and 8 bits, beside peers and the limit.
`pip install '.[report]' && python bench/bits.py --out FOLDER` writes bits.json.

Each instruction set has a process of its own; within it the contestants of a case take turns.
"""

from results import arguments, write
from stored import STORED, costs, errors, in_a_process, memory

from fastadam.kernel import backends

SIZES = (100_096, 10_000_128, 32_000_000)  #: elements; whole blocks of 256, since torchao takes 8 bits for no others
RESIDENT = 100_000_000  #: parameters, of which the states' memory is measured


def main() -> None:
    """Measure each instruction set in a process of its own, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="elements (default: %(default)s)")
    parser.add_argument("--resident", type=int, default=RESIDENT, help="parameters whose memory is measured")
    options = parser.parse_args()
    measured = {
        "costs": {name: costs(name) for name in STORED},
        "errors": errors(),
        "memory": memory(options.resident),
        "cases": [one for isa in backends.available_isas() for one in in_a_process(isa, options.sizes)],
    }
    write(options.out, "bits", measured)


if __name__ == "__main__":
    main()
