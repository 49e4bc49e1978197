"""What is traced: the tensors of a net, its export, the graph, and the subject that holds them.

In the order of imports: `_tensors` (what cannot be moved at all is refused), `_graph` (nodes,
entries and outputs of one forward pass), `_export` (torch.export of a private copy), `_subject`
(model and sample, seen through one caller).
"""
