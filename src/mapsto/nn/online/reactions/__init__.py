"""What a learner does where its stream drifts: learns faster, begins anew, is challenged, is distilled into, recalls what it knew."""
