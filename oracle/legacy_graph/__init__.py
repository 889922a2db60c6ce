"""TF1 control flow: finding it in a graph, explaining why it has no gradient, giving it one."""
