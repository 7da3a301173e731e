"""What a release is made of: hashes of every package, a bill of materials, secrets in the tree, known advisories.

For who makes or checks a release, in a checkout; nothing here is installed with fedbus.
"""
