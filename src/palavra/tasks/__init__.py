"""What a model is trained to do for people: datasets, kinds of tasks, and how well they are done."""
