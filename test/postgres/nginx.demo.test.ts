import { holdsTheEdge } from '../support/edge.ts'
import { findNginx, startDemo } from '../support/nginx.ts'

holdsTheEdge('nginx', findNginx, startDemo)
