"""Certificates for the servers of the tests."""

import ssl

import trustme


class Certificates:
    """A certificate for localhost, and SSL contexts for clients that trust it."""

    def __init__(self, folder):
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("localhost", "127.0.0.1")
        self.certificate = str(folder / "certificate.pem")
        self.key = str(folder / "key.pem")
        self.authority = str(folder / "authority.pem")
        self._authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        self._contexts = {}
        issued.private_key_pem.write_to_path(self.key)

    def trust(self, *protocols):
        """Return the context of a client that offers these protocols by ALPN.

        Each context is made once: that takes longer than a handshake.
        """
        if protocols not in self._contexts:
            context = self._contexts[protocols] = ssl.create_default_context()
            self._authority.configure_trust(context)
            if protocols:
                context.set_alpn_protocols(protocols)
        return self._contexts[protocols]
