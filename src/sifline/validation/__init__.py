"""The checks that judge a cluster, whichever cluster it is."""
