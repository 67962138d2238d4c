"""What should I label next? A labelling project in a folder, with people as annotators. Imports no ray.

`labelling.api.LabellingProject` is the Python interface, `labelling.commands` the command line.
"""
