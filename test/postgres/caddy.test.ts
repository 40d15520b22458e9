import { findCaddy, startCaddy } from '../support/caddy.ts'
import { holdsTheEdge } from '../support/edge.ts'

holdsTheEdge('Caddy', findCaddy, startCaddy)
