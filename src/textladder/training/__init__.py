"""Training of networks through fastai's Learner: stages, callbacks, frozen states, language models."""
