// A verifier with jwks-rsa, which keeps each key apart, for as long as it is told, and five of them at most.
import { createPublicKey } from 'node:crypto'
import { jwtVerify } from 'jose'
import jwksRsa from 'jwks-rsa'

const client = jwksRsa({ jwksUri: 'JWKS_URL', cache: true, cacheMaxAge: CACHE_MILLISECONDS })

export async function claimsOf(token) {
  const { payload } = await jwtVerify(
    token,
    async (header) => createPublicKey((await client.getSigningKey(header.kid)).getPublicKey()),
    { algorithms: ['ALGORITHM'], audience: 'api', issuer: 'ISSUER', clockTolerance: 60 },
  )
  return payload
}
