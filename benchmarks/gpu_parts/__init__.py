"""The parts of `gpu.py`: one module each, with a function `run(part)`."""
